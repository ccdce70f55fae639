//! Operators. Each has one home: its shape and dtype rule, kernel call and gradient stand together.

pub mod activation;
pub mod attention;
mod batch_norm;
pub mod convolution;
pub mod device;
pub mod dropout;
pub mod elementwise;
pub mod factory;
pub mod fft;
pub mod indexing;
pub mod join;
pub mod linalg;
pub mod loss;
mod mask;
pub mod normalization;
pub mod optimizer;
pub mod pooling;
pub mod random;
pub mod reduction;
pub mod scan;
pub mod scatter;
pub mod search;
pub mod sorting;
pub mod spectrogram;
pub mod statistics;
pub mod view;
pub mod windows;
