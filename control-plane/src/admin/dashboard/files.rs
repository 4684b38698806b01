//! The files of the dashboard, in the program. A test compares the list with the folder.

/// A file as it is served.
#[derive(Debug)]
pub(super) struct File {
    /// Its path below `/dashboard/`.
    pub(super) name: &'static str,
    pub(super) content: &'static [u8],
}

impl File {
    /// What it is, by its ending.
    pub(super) fn kind(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        }
    }
}

/// The file of this name; any other path is none.
pub(super) fn named(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(File {
            name: $name,
            content: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboard/", $name)),
        }),*]
    };
}

/// All of them.
pub(super) const FILES: &[File] = files![
    "app.js",
    "icon.svg",
    "index.html",
    "lib/api.js",
    "lib/chart.js",
    "lib/format.js",
    "lib/health.js",
    "lib/html.js",
    "lib/layers.js",
    "lib/poll.js",
    "lib/reasons.js",
    "lib/roles.js",
    "lib/route.js",
    "lib/signals.js",
    "lib/theme.js",
    "lib/ui.js",
    "pages/api.js",
    "pages/audit.js",
    "pages/certificates.js",
    "pages/changes.js",
    "pages/explain.js",
    "pages/login.js",
    "pages/proxies.js",
    "pages/proxy.js",
    "pages/rollout.js",
    "pages/rollouts.js",
    "pages/service.js",
    "pages/service/breakers.js",
    "pages/service/changes.js",
    "pages/service/instances.js",
    "pages/service/rules.js",
    "pages/service/signals.js",
    "pages/services.js",
    "pages/tap.js",
    "pages/topology.js",
    "style.css",
    "theme.js",
    "vendor/README.md",
    "vendor/SHA256SUMS",
    "vendor/cytoscape.LICENSE",
    "vendor/cytoscape.js",
    "vendor/htm-preact.js",
    "vendor/htm.LICENSE",
    "vendor/preact.LICENSE",
    "vendor/uplot.LICENSE",
    "vendor/uplot.css",
    "vendor/uplot.js",
];
