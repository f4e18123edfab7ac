"""The search: job specs, searchers, the funnel, the controller, the store, the command line."""
