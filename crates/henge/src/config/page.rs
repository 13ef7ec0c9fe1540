//! The page of documentation of all settings, `docs/configuration.md`, made of the table.

use std::fmt::Write as _;

use super::{Config, SETTINGS};
use crate::docs_page;

const HEAD: &str = "\
# Configuration

Every setting of a node. This page is made of the table of settings; to write it anew: `UPDATE_DOCS=1 cargo test -p henge --lib docs_page`.

A setting comes from a flag, the environment, a file or its default, and the first of these that has it goes before the others:

| from | how `cache.max_items` is set |
|---|---|
| a flag | `henge --set cache.max_items=1000`; some have flags of their own, `--max-items 1000` |
| the environment | `HENGE_CACHE__MAX_ITEMS=1000` |
| a file | `henge --config henge.toml`, with `max_items = 1000` below `[cache]`; or the same as JSON |

All that is given has to be right, also what something else goes before; `henge config check` says whether it is, and `henge config print` what holds and where it is from. What may change while the node runs is read again by `SIGHUP` and `POST /admin/reload`;
`CONFIG SET` over the Redis protocol changes it until then, by the same names. Some hold for a [whole cluster](cluster.md#settings). `GET /config` shows what holds.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let default = Config::default();
    let mut section = "";
    for setting in SETTINGS {
        if setting.section() != section {
            section = setting.section();
            let _ = write!(
                page,
                "\n## `[{section}]`\n\n| setting | default | may change | values | what it is |\n|---|---|---|---|---|\n"
            );
        }
        let doc: Vec<&str> = setting.doc().lines().map(str::trim).collect();
        let _ = writeln!(
            page,
            "| `{}` | `{}` | {} | {} | {} |",
            setting.key(),
            setting.value(&default).render(),
            if setting.is_reloadable() {
                "while it runs"
            } else {
                "at a restart"
            },
            cell(&setting.expected()),
            cell(&doc.join(" ")),
        );
    }
    page
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn docs_page_is_what_the_table_gives() {
    docs_page::check("configuration.md", &page());
}
