"""Scales of the table's expressions: gradient norms matched to each detector's own losses."""
