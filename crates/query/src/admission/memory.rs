//! How much memory this process may use.

/// The least of the machine's memory and the bounds of the control groups that the process is in.
pub(crate) fn available_bytes() -> Option<usize> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| mem_total(&text));
    let mut bounds: Vec<usize> = machine.into_iter().collect();
    let own = read("/proc/self/cgroup").unwrap_or_default();
    for folder in cgroup_folders(&own) {
        bounds
            .extend(read(&format!("{folder}/memory.max")).and_then(|text| text.trim().parse::<usize>().ok()));
    }
    let first = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
    bounds.extend(read(first).and_then(|text| text.trim().parse::<usize>().ok()));
    bounds.into_iter().min()
}

fn mem_total(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// The folder of the process's group in the unified hierarchy, and those above it.
fn cgroup_folders(own: &str) -> Vec<String> {
    let path = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/");
    let mut path = path.trim_end_matches('/');
    let mut folders = Vec::new();
    loop {
        folders.push(format!("/sys/fs/cgroup{path}"));
        match path.rfind('/') {
            Some(at) => path = &path[..at],
            None => return folders,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_bound_counts() {
        assert_eq!(mem_total("MemTotal:  16 kB\nMemFree: 3 kB\n"), Some(16 << 10));
        let folders = cgroup_folders("1:cpu:/x\n0::/kube/pod-1\n");
        assert_eq!(folders, ["/sys/fs/cgroup/kube/pod-1", "/sys/fs/cgroup/kube", "/sys/fs/cgroup"]);
        assert_eq!(cgroup_folders("0::/\n"), ["/sys/fs/cgroup"]);
        assert!(available_bytes().unwrap() > 64 << 20);
    }
}
