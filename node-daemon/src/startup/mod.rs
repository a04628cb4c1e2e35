//! What the node does once before it serves.
