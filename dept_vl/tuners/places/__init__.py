"""Where a method acts on a backbone, and how."""
