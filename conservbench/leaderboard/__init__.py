"""The tables of scores and the published page."""
