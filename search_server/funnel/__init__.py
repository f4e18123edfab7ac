"""The funnel: the stages that a candidate passes, cheapest first."""
