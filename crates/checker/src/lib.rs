//! Whether a history of requests and answers is one that a cache may give: linearizable for each key, but for what it may forget.
