//! How the program ends.

use std::fmt;
use std::process::ExitCode;

use crate::collect::ConnectError;

/// The exit codes, a promise to pipelines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was evaluated; no finding at or above `--fail-on`.
    Clean = 0,
    /// Findings at or above `--fail-on`.
    Findings = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Nothing at or above `--fail-on`, but something could not be evaluated.
    Incomplete = 3,
    /// No cluster reached, or the input could not be read.
    Unreadable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error that ends the program, with the code that it ends with.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: anyhow::Error,
}

impl Failure {
    pub fn usage(error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: Exit::Usage, error: error.into() }
    }

    pub fn unreadable(error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: Exit::Unreadable, error: error.into() }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        match error {
            ConnectError::Config(_) => Failure::usage(error),
            ConnectError::Credentials { .. }
            | ConnectError::Unreachable { .. }
            | ConnectError::Unauthorized { .. }
            | ConnectError::NotKubernetes { .. } => Failure::unreadable(error),
        }
    }
}

/// The whole chain of causes in one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}
