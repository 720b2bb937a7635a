//! Ctrl-C: the first one ends the reading, and what is known by then is reported; the second one ends the program.

use std::sync::OnceLock;
use std::{future, process, thread};

use tokio::sync::watch;

/// As a shell reports a program that Ctrl-C ended: 128 and the number of SIGINT.
const ENDED_BY_INTERRUPT: i32 = 130;

/// Tells whether the user wants it to end. The default never does.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<bool>);

impl Default for Interrupt {
    fn default() -> Interrupt {
        Interrupt(watch::channel(false).1)
    }
}

impl Interrupt {
    /// Listens to Ctrl-C from now on, for the rest of the program's life.
    pub fn on_ctrl_c() -> Interrupt {
        static LISTENING: OnceLock<Interrupt> = OnceLock::new();
        LISTENING.get_or_init(listen).clone()
    }

    pub fn has_come(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it comes, at once if it came before.
    pub async fn wait(&self) {
        if self.0.clone().wait_for(|has_come| *has_come).await.is_err() {
            // Nobody is there any more who could tell.
            future::pending::<()>().await;
        }
    }
}

/// A thread of its own, so that a second Ctrl-C is heard whatever the others are busy with.
fn listen() -> Interrupt {
    let (tell, told) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let spawned = runtime.map(|runtime| {
        thread::Builder::new().name("ctrl-c".to_string()).spawn(move || {
            runtime.block_on(async {
                // Where signals cannot be heard, Ctrl-C ends the program as it would any other.
                if tokio::signal::ctrl_c().await.is_ok() {
                    let _ = tell.send(true);
                    let _ = tokio::signal::ctrl_c().await;
                    process::exit(ENDED_BY_INTERRUPT);
                }
            });
        })
    });
    match spawned {
        Ok(Ok(_)) => Interrupt(told),
        _ => Interrupt::default(),
    }
}
