"""From rows to figures with intervals: everything a report says, computed once."""
