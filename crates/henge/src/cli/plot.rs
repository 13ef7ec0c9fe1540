//! What the pages of `henge bench` and `henge verify` are drawn with: plots as SVG, their look, and text that means nothing to a browser. A page
//! needs nothing else: no script, no font, no address.

use std::fmt::Write;

/// The plots' size, in units of the SVG; the page scales them.
pub(super) const WIDTH: f64 = 860.0;
pub(super) const HEIGHT: f64 = 340.0;
/// What axes and their labels take at the left, the top, the right and the bottom.
pub(super) const LEFT: f64 = 78.0;
pub(super) const TOP: f64 = 16.0;
pub(super) const RIGHT: f64 = 36.0;
pub(super) const BOTTOM: f64 = 52.0;

/// Where a value between two lies between two places.
pub(super) fn place(value: f64, low: f64, high: f64, from: f64, to: f64) -> f64 {
    let part = (value - low) / (high - low).max(f64::MIN_POSITIVE);
    from + part * (to - from)
}

/// 1, 2 or 5 times a power of ten, so that some five of it make the whole.
pub(super) fn tidy_step(whole: f64) -> f64 {
    let rough = whole / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let digit = rough / power;
    let tidy = match digit {
        _ if digit <= 1.0 => 1.0,
        _ if digit <= 2.0 => 2.0,
        _ if digit <= 5.0 => 5.0,
        _ => 10.0,
    };
    tidy * power
}

/// An SVG that grows.
pub(super) struct Plot(String);

impl Plot {
    pub(super) fn new(name: &str) -> Self {
        Self(format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{name}\">\n"
        ))
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // A string takes every text.
        let _ = self.0.write_fmt(element);
        self.0.push('\n');
    }

    pub(super) fn grid_y(&mut self, y: f64, label: &str) {
        let (right, at, baseline) = (WIDTH - RIGHT, LEFT - 10.0, y + 4.0);
        self.add(format_args!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
             <text x=\"{at}\" y=\"{baseline:.1}\" text-anchor=\"end\">{label}</text>"
        ));
    }

    pub(super) fn grid_x(&mut self, x: f64, label: &str) {
        let (bottom, baseline) = (HEIGHT - BOTTOM, HEIGHT - BOTTOM + 18.0);
        self.add(format_args!(
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{x:.1}\" y=\"{baseline}\" text-anchor=\"middle\">{label}</text>"
        ));
    }

    /// What the axes measure.
    pub(super) fn titles(&mut self, y: &str, x: &str) {
        let (middle_x, middle_y) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
        let below = HEIGHT - 10.0;
        self.add(format_args!(
            "<text class=\"axis\" x=\"{middle_x}\" y=\"{below}\" text-anchor=\"middle\">{x}</text>\
             <text class=\"axis\" transform=\"translate(14 {middle_y}) rotate(-90)\" text-anchor=\"middle\">{y}</text>"
        ));
    }

    /// A time in which something was going on, behind what is drawn later; what it was is told where one points at it.
    pub(super) fn band(&mut self, class: &str, from: f64, to: f64, what: &str) {
        let (height, width) = (HEIGHT - BOTTOM - TOP, (to - from).max(1.0));
        let what = escaped(what);
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"><title>{what}</title></rect>"
        ));
    }

    pub(super) fn line(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        let path = path.trim_end();
        self.add(format_args!(
            "<polyline class=\"{class}\" points=\"{path}\"><title>{class}</title></polyline>"
        ));
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</svg>");
        self.0
    }
}

/// Text that means nothing to a browser.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The look of a page. What a line is drawn in is the `--colour` of its class, which a page says, also for those who read it in the dark.
pub(super) const STYLE: &str = "
:root { color-scheme: light dark; --paper: #fbfbfa; --ink: #1f2328; --soft: #5f666e; --grid: #e3e5e8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e6e8ea; --soft: #9aa2ab; --grid: #2c3138; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2.2rem 0 .4rem; font-size: 1.15rem; }
.summary { margin: .3rem 0 0; color: var(--soft); overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: 0 0 .4rem; padding: 0; list-style: none; font-size: .9rem; }
.legend li::before { content: ''; display: inline-block; width: 1.4rem; margin-right: .45rem; vertical-align: .25rem;
  border-top: 3px solid var(--colour); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg text.axis { fill: var(--ink); font-size: 13px; }
.grid { stroke: var(--grid); stroke-width: 1; }
polyline { fill: none; stroke: var(--colour); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
rect { fill: var(--colour); opacity: .22; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 0 .3rem 2.2rem; border-bottom: 1px solid var(--grid); text-align: right; font-weight: 400; }
thead th { color: var(--soft); }
tbody th { padding-left: 0; text-align: left; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_tidy() {
        for (whole, step) in [
            (5.0, 1.0),
            (30.0, 10.0),
            (9.0, 2.0),
            (0.4, 0.1),
            (123_456.0, 50_000.0),
        ] {
            let found = tidy_step(whole);
            assert!((found - step).abs() < step / 1e6, "{whole}: {found}");
        }
    }
}
