"""The service: an HTTP API and pages over a store, a reader of it plus a submitter of searches.

It holds nothing that a search needs: it may be restarted at any time, run twice, or be down.
"""
