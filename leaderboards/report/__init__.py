"""The certification report: what a run says, for somebody who was not there."""
