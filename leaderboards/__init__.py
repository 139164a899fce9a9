"""What a run found, and how runs compare: records and statistics. Needs no torch."""
