//! Reverse-mode differentiation: metadata on tensors, nodes, and the engine.

pub mod custom;
pub mod engine;
pub mod expr;
pub mod meta;
pub mod node;
pub mod view;
pub mod watch;

pub use engine::{backward, grad, run, run_edges, GradOptions};
pub use meta::Hook;
pub use node::{Backward, Edge, Node};
