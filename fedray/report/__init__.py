"""The report: what runs did, in one self-contained page."""
