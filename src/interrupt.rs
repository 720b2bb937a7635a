//! Ctrl-C: the first one stops reading and reports the results so far; the second one ends the program.

use std::sync::OnceLock;
use std::{future, process, thread};

use tokio::sync::watch;

/// The exit code that shells use for a program ended by Ctrl-C: 128 plus the number of SIGINT.
const ENDED_BY_INTERRUPT: i32 = 130;

/// Signals that the user pressed Ctrl-C. The default value never fires.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<bool>);

impl Default for Interrupt {
    fn default() -> Interrupt {
        Interrupt(watch::channel(false).1)
    }
}

impl Interrupt {
    /// Handles Ctrl-C from now on, until the program ends.
    pub fn on_ctrl_c() -> Interrupt {
        static LISTENING: OnceLock<Interrupt> = OnceLock::new();
        LISTENING.get_or_init(listen).clone()
    }

    pub fn has_come(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves on Ctrl-C, immediately if it was pressed before.
    pub async fn wait(&self) {
        if self.0.clone().wait_for(|has_come| *has_come).await.is_err() {
            // The sender is gone, so Ctrl-C can no longer be reported.
            future::pending::<()>().await;
        }
    }
}

/// Uses a dedicated thread, so that a second Ctrl-C is handled even if all other threads are busy.
fn listen() -> Interrupt {
    let (sender, receiver) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let spawned = runtime.map(|runtime| {
        thread::Builder::new().name("ctrl-c".to_string()).spawn(move || {
            runtime.block_on(async {
                // If no handler can be installed, Ctrl-C ends the program as usual.
                if tokio::signal::ctrl_c().await.is_ok() {
                    let _ = sender.send(true);
                    let _ = tokio::signal::ctrl_c().await;
                    process::exit(ENDED_BY_INTERRUPT);
                }
            });
        })
    });
    match spawned {
        Ok(Ok(_)) => Interrupt(receiver),
        _ => Interrupt::default(),
    }
}
