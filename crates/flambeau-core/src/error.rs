//! Errors are values. The kind decides which Python exception class an error becomes.

use std::fmt;

/// The class of an error, after the Python exception it is raised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// `RuntimeError`: shapes that do not fit, unsupported dtypes, autograd misuse.
    Runtime,
    /// `ValueError`: an argument outside its domain.
    Value,
    /// `IndexError`: a dimension or index out of range.
    Index,
    /// `TypeError`: an argument of the wrong type.
    Type,
    /// `NotImplementedError`: no kernel for this dtype or device.
    NotImplemented,
    /// `torch.OutOfMemoryError` (a `RuntimeError`): memory that cannot be had.
    OutOfMemory,
    /// `torch.linalg.LinAlgError` (a `RuntimeError`): a decomposition that does not exist.
    LinAlg,
    /// A backend has no kernel of this family. Never reaches the user: the caller goes through the host.
    Unsupported,
    /// Something that cannot be said of one example of a batch (its value, a size that depends on it). An operator that meets it
    /// runs example by example; elsewhere it is a `RuntimeError`.
    Batch,
    /// An exception raised by Python code that the core called; the binding keeps the exception itself.
    Foreign,
}

/// An error with its class and message. Small, so that `Result` stays cheap to return.
#[derive(Clone)]
pub struct Error(Box<(ErrorKind, String)>);

/// The result of everything in Flambeau that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with `message`.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new((kind, message.into())))
    }
    /// Which class of exception this is.
    pub fn kind(&self) -> ErrorKind {
        self.0 .0
    }
    /// What went wrong, in words.
    pub fn message(&self) -> &str {
        &self.0 .1
    }
    /// The same error with `context` put before its message.
    #[cold]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0 .1 = format!("{context}: {}", self.0 .1);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind(), self.message())
    }
}
impl std::error::Error for Error {}

/// `err!(Runtime, "format {}", x)` builds an [`Error`] of that kind.
#[macro_export]
macro_rules! err {
    ($kind:ident, $($arg:tt)*) => { $crate::Error::new($crate::ErrorKind::$kind, format!($($arg)*)) };
}
/// `bail!(Runtime, "format {}", x)` returns an [`Error`] of that kind.
#[macro_export]
macro_rules! bail {
    ($kind:ident, $($arg:tt)*) => { return Err($crate::err!($kind, $($arg)*)) };
}
/// `ensure!(condition, Runtime, "format {}", x)` returns the error unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($cond:expr, $kind:ident, $($arg:tt)*) => { if !$cond { return Err($crate::err!($kind, $($arg)*)); } };
}
