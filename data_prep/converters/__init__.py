"""Raw files to rows of prepared splits, one module a task or kind of task."""
