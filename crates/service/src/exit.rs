//! How a process ends.

use std::process::ExitCode;

/// The reason of an end, which decides the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Asked to stop and did.
    Success,
    /// Something failed while running: exit code 1.
    Failure(String),
    /// The command line or a configuration file is wrong: exit code 2. Restarting will not help.
    Usage(String),
}

impl Exit {
    /// Writes one line to standard error where there is something to say, and gives the code.
    pub fn report(&self, program: &str) -> ExitCode {
        match self {
            Exit::Success => ExitCode::SUCCESS,
            Exit::Failure(text) => {
                eprintln!("{program}: error: {}", one_line(text));
                ExitCode::from(1)
            }
            Exit::Usage(text) => {
                eprintln!("{program}: error: {}", one_line(text));
                ExitCode::from(2)
            }
        }
    }
}

impl From<crate::config::ConfigError> for Exit {
    fn from(error: crate::config::ConfigError) -> Self {
        Exit::Usage(error_chain(&error))
    }
}

/// An error and its sources on one line, each fact once.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_up_on_one_line() {
        assert_eq!(one_line("a\n  b\n\nc"), "a; b; c");
        let inner = std::io::Error::other("disk on fire");
        let outer = crate::config::ConfigError::Read { path: "x.yml".into(), source: inner };
        assert_eq!(error_chain(&outer), "cannot read x.yml: disk on fire");
    }
}
