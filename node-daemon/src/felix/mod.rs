//! Felix: this node's routes.
