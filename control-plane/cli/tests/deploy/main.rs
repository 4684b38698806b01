//! What lies in deploy/, held to what it says: the chart and its values, kustomize, units of systemd, images, dashboards, and the
//! pages for who follows them. Foreign tools judge (Helm, kubectl, kubernetes-validate, systemd-analyze, promtool); none of
//! them asks a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod chart;
mod definitions;
mod flags;
mod guide;
mod images;
mod kustomize;
mod metrics;
mod observability;
mod page;
mod permissions;
mod schema;
mod stage;
mod units;
