//! Tells the program which commit it is built from, for `GET /version`. Without git, or outside of our own repository, it
//! says nothing, and never fails the build. `HENGE_COMMIT` in the environment goes before what git says.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=HENGE_COMMIT");
    if env::var_os("HENGE_COMMIT").is_some() || !is_ours() {
        return;
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo:rustc-env=HENGE_COMMIT={commit}");
    }
    // What changes when another commit is checked out, or made: HEAD, or the branch that it names.
    watch("HEAD");
    if let Some(branch) = git(&["symbolic-ref", "-q", "HEAD"])
        && !watch(&branch)
    {
        // A packed branch gets a file of its own with the next commit; git writes HEAD's own log with it.
        watch("packed-refs");
        watch("logs/HEAD");
    }
}

/// Whether the repository that git finds is that of these sources, not one that they were unpacked in.
fn is_ours() -> bool {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let workspace = manifest.as_deref().and_then(|path| path.ancestors().nth(2));
    let found = git(&["rev-parse", "--show-toplevel"]);
    let real = |path: &Path| path.canonicalize().ok();
    let found = found.and_then(|path| real(Path::new(&path)));
    found.is_some() && found == workspace.and_then(real)
}

/// Builds again when a file of git's changes; false if it is not there, as cargo would then build each time.
fn watch(file: &str) -> bool {
    let path = git(&["rev-parse", "--git-path", file]);
    let path = path.filter(|path| Path::new(path).is_file());
    if let Some(path) = &path {
        println!("cargo:rerun-if-changed={path}");
    }
    path.is_some()
}

/// What git says, if there is a git and it says something.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
