"""The demo's world: scenes, their drawing, their questions and captions, and the official files they go to."""
