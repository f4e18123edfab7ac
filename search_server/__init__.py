"""The search service: job specs, searchers, the funnel, the controller, the store and the command line."""
