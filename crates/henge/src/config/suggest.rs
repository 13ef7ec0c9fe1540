//! "Did you mean": the nearest of a few known names.
//!
//! Near means an optimal-string-alignment distance of at most a third of the longer name, the measure that compilers
//! use; a suggestion that is far off is worse than none.

use super::settings::{SETTINGS, Setting};

/// Names longer than this are slips of another kind; the bound keeps the quadratic distance cheap.
const NAME_CHARS_MAX: usize = 100;

/// The candidate nearest to `name`, if one is near.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .filter_map(|candidate| Some((near(&name, candidate)?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The setting that `name` may have meant: the right key in the wrong section or in none, else the nearest name.
pub(super) fn setting(name: &str) -> Option<&'static Setting> {
    let key = name.rsplit('.').next()?;
    let mut same_key = SETTINGS
        .iter()
        .filter(|setting| setting.key().eq_ignore_ascii_case(key));
    if let (Some(only), None) = (same_key.next(), same_key.next()) {
        return Some(only);
    }
    // Without a section, the keys are compared alone; with one, sections weigh in.
    if name.contains('.') {
        Setting::find(nearest(name, SETTINGS.iter().map(Setting::name))?)
    } else {
        let key = nearest(name, SETTINGS.iter().map(Setting::key))?;
        SETTINGS.iter().find(|setting| setting.key() == key)
    }
}

/// The distance, or none when the names are far apart.
fn near(name: &str, candidate: &str) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (name.chars().collect(), candidate.chars().collect());
    let longer = a.len().max(b.len());
    if longer > NAME_CHARS_MAX {
        return None;
    }
    let distance = distance(&a, &b);
    (distance <= longer.div_ceil(3))
        .then_some(distance)
        .filter(|distance| *distance < longer)
}

/// Insertions, deletions, replacements and swaps of neighbours that make `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near_and_nothing_else() {
        let cases = [
            // Misspelt on purpose:
            ("cache.max_item", Some("cache.max_items")),
            ("cache.maxitems", Some("cache.max_items")),
            ("cahce.max_items", Some("cache.max_items")),
            ("max_items", Some("cache.max_items")),
            ("MAX_ITEMS", Some("cache.max_items")),
            ("limits.max_items", Some("cache.max_items")),
            (
                "compression.treshold_bytes",
                Some("compression.threshold_bytes"),
            ),
            ("compression.leve", Some("compression.level")),
            ("log.levle", Some("log.level")),
            ("polcy", Some("cache.policy")),
            // End of misspelt.
            ("cache.x", None),
            ("", None),
            ("kubernetes.namespace", None),
        ];
        for (name, expected) in cases {
            assert_eq!(setting(name).map(Setting::name), expected, "{name:?}");
        }
        assert_eq!(nearest("prot", ["port", "peers"]), Some("port"));
        assert_eq!(nearest("a", ["b"]), None, "nothing in common");
        assert_eq!(nearest(&"x".repeat(1000), ["port"]), None);
    }
}
