//! Outboxes over the smallest table there is.
