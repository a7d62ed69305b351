"""Data made when they are first asked for: the demo's, and text tasks from the hub."""
