use super::*;

/// Lines of the evaluations that fail.
fn failures(text: &str) -> Vec<usize> {
    run_in_memory(text).unwrap().failures.iter().map(|f| f.line).collect()
}

const LOAD: &str = "load 1m\n  m{a=\"1\"} 1 2 3\n  m{a=\"2\"} 10 20 30\n\n";

#[test]
fn what_is_wrong_is_found() {
    let eval = |body: &str| failures(&format!("{LOAD}eval {body}"));
    assert_eq!(eval("instant at 1m m\n  m{a=\"1\"} 2\n  m{a=\"2\"} 20"), []);
    for wrong in [
        "instant at 1m m\n  m{a=\"1\"} 2.1\n  m{a=\"2\"} 20",
        "instant at 1m m\n  m{a=\"1\"} 2",
        "instant at 1m m{a=\"1\"}\n  m{a=\"1\"} 2\n  m{a=\"2\"} 20",
        "instant at 1m m{a=\"1\"}\n  m{a=\"1\"} {{count:1}}",
        "instant at 1m sort(m)\n  expect ordered\n  m{a=\"2\"} 20\n  m{a=\"1\"} 2",
        "instant at 1m m{a=\"1\"}\n  expect fail\n  m{a=\"1\"} 2",
        "instant at 1m m{a=\"1\"}\n  expect warn\n  m{a=\"1\"} 2",
        "instant at 1m rate(m{a=\"1\"}[2m])\n  expect no_info\n  {a=\"1\"} 0.0125",
        "instant at 1m rate(m{a=\"1\"}[2m])\n  expect info msg: something\n  {a=\"1\"} 0.0125",
        "instant at 1m 1\n  2",
        "instant at 1m vector(1)\n  1",
        "range from 0 to 2m step 1m m{a=\"1\"}\n  m{a=\"1\"} 1 2 4",
        "range from 0 to 2m step 1m m{a=\"1\"}\n  m{a=\"1\"} 1 2",
        "range from 0 to 2m step 1m m{a=\"1\"}\n  m{a=\"1\"} 1 _ 3",
        "instant at 1m m + on() m\n  expect fail msg: something else",
    ] {
        assert_eq!(eval(wrong), [5], "{wrong}");
    }
}

#[test]
fn malformed_scripts_are_errors() {
    for bad in [
        "lod 5m\n m 1",
        "load 5q\n m 1",
        "load 5m\n m 1+",
        "eval instant at 1m",
        "load 1m\n m 1\n\nload 1m\n m 1",
    ] {
        assert!(run_in_memory(bad).is_err(), "{bad:?}");
    }
}
