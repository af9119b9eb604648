"""The tournament: every rule, no rule, and a sweep of fixed thresholds, over tasks that need clipping and tasks that do not."""
