//! The first token of the admin API: without one nobody could make any.
//!
//! It is written to a file in the data folder, where the keys of the mesh lie as well: whoever can read there is the mesh
//! already. A start at which no admin token is good any more makes another.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use outrigger_certs::{ApiToken, RootHash};
use outrigger_mesh::Label;
use time::OffsetDateTime;

use super::{Grant, Role, book};
use crate::audit::Author;
use crate::store::Store;

/// Makes a token of an admin, where there is none that is good. Told is the file in which it lies then.
pub async fn first_token(store: &dyn Store, root: RootHash, data: &Path) -> anyhow::Result<Option<PathBuf>> {
    let now = OffsetDateTime::now_utc();
    let cards = book::list(store).await?;
    if cards.iter().any(|card| card.grant.role() == Role::Admin && card.is_live(now)) {
        return Ok(None);
    }
    let file = data.join("admin-token");
    let token = ApiToken::generate(root)?;
    let name = Label::new("first-admin").context("the name of the first token")?;
    // The file is there before the token is good: a token that nobody can read would keep the next from being made.
    write_alone(&file, token.expose().as_bytes())
        .with_context(|| format!("the first admin token can not be written to {}", file.display()))?;
    let author = Author::system("there was no admin token that is good");
    book::keep(store, &token, name, Grant::everything(), LIFE, &author).await?;
    Ok(Some(file))
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_alone(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = file.with_extension("new");
    // What an earlier start left half done may have another owner or mode.
    let _absent = std::fs::remove_file(&fresh);
    let mut to = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    to.write_all(bytes)?;
    to.write_all(b"\n")?;
    to.sync_all()?;
    std::fs::rename(&fresh, file)
}

const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
