//! Exit codes and the errors that end the program.

use std::fmt;
use std::process::ExitCode;

use crate::collect::ConnectError;

/// The table in the help.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  all rules evaluated, no findings at or above --fail-on
  1  findings at or above --fail-on
  2  invalid usage or configuration
  3  no findings at or above --fail-on, but some rules could not be evaluated
  4  cluster unreachable, or the input could not be read";

/// The exit codes. Pipelines depend on them, so they are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All rules were evaluated, no findings at or above `--fail-on`.
    Clean = 0,
    /// Findings at or above `--fail-on`.
    Findings = 1,
    /// Invalid usage or configuration.
    Usage = 2,
    /// No findings at or above `--fail-on`, but some rules could not be evaluated.
    Incomplete = 3,
    /// The cluster is unreachable, or the input could not be read.
    Unreadable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error that ends the program, with its exit code.
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

/// The whole chain of causes, in one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}
