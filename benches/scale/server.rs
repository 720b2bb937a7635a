//! An API server with a generated in-memory cluster, for machines without a real one: `cargo bench --bench api-server
//! -- PODS`. Prints `ready KUBECONFIG` and serves until standard input is closed.

use std::io::Read;

use generated::World;
use serde_json::Value;

#[path = "../../tests/api_server/mod.rs"]
mod api_server;
#[path = "../../analyzers/benches/generated/mod.rs"]
#[allow(dead_code)]
mod generated;

const PODS: usize = 10_000;

fn main() {
    let pods = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(PODS);
    let mut objects = Vec::new();
    World { pods, broken_every: 0 }.each_page(&mut |kind, body| {
        let mut page: Value = serde_json::from_str(&body).expect("a list");
        let Some(items) = page["items"].as_array_mut() else { return };
        for mut object in items.drain(..) {
            object["apiVersion"] = kind.api_version().into();
            object["kind"] = kind.api().kind.into();
            objects.push(object);
        }
    });
    let server = api_server::ApiServer::start(objects);
    println!("ready {}", server.kubeconfig().display());
    // The parent process holds the other end, which is closed even if the parent is killed.
    std::io::stdin().read_to_end(&mut Vec::new()).expect("an input");
}
