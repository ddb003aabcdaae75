//! Many dashboards that refresh at the same time, each with a connection of its own.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::running::Running;
use crate::sets::panels;
use crate::shape::Span;

/// Refreshes of each dashboard, after one that does not count.
const REFRESHES: usize = 3;

/// What the dashboards cost together.
#[derive(Clone, Debug)]
pub(crate) struct DashboardsResult {
    /// Latencies of panels in seconds, sorted.
    pub(crate) latencies_s: Vec<f64>,
    /// Server CPU seconds per panel.
    pub(crate) cpu_s: f64,
    /// Wall seconds of all refreshes.
    pub(crate) wall_s: f64,
}

/// Refreshes `count` dashboards at once.
pub(crate) fn refresh(server: &Running, span: Span, count: usize) -> Result<DashboardsResult> {
    refresh_all(server, span, count, 1)?;
    let cpu_before = server.cpu_seconds()?;
    let started = Instant::now();
    let mut latencies_s = refresh_all(server, span, count, REFRESHES)?;
    let wall_s = started.elapsed().as_secs_f64();
    let cpu_s = (server.cpu_seconds()? - cpu_before) / latencies_s.len() as f64;
    latencies_s.sort_unstable_by(f64::total_cmp);
    Ok(DashboardsResult { latencies_s, cpu_s, wall_s })
}

fn refresh_all(server: &Running, span: Span, count: usize, refreshes: usize) -> Result<Vec<f64>> {
    std::thread::scope(|scope| {
        let viewers: Vec<_> = (0..count)
            .map(|dashboard| {
                scope.spawn(move || -> Result<Vec<f64>> {
                    let (panels, mut client) = (panels(span, dashboard), server.client());
                    let mut latencies = Vec::with_capacity(panels.len() * refreshes);
                    for _ in 0..refreshes {
                        for panel in &panels {
                            let started = Instant::now();
                            panel.execute(&mut client).with_context(|| server.peer.title.clone())?;
                            latencies.push(started.elapsed().as_secs_f64());
                        }
                    }
                    Ok(latencies)
                })
            })
            .collect();
        let mut all = Vec::new();
        for viewer in viewers {
            all.extend(viewer.join().expect("a viewer returns its error")?);
        }
        Ok(all)
    })
}
