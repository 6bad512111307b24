//! The binary: SIGHUP, the commands and their exit codes.

use tempfile::TempDir;

use crate::running::{Gateway, hookward, run, stdout};

fn text(rest: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndrain_delay = \"0s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [sources.a]\nprovider = \"github\"\nsecrets = [{{ file = \"secret\" }}]\nupstream = \"http://127.0.0.1:9/\"\n{rest}"
    )
}

#[test]
fn a_signal_or_a_command_reloads_and_the_exit_code_says_what_came_of_it() {
    let data = TempDir::new().expect("a directory");
    let write = |rest: &str| std::fs::write(data.path().join("hookward.toml"), text(rest)).expect("written");
    std::fs::write(data.path().join("secret"), "binary-canary-0123456789\n").expect("written");
    let gateway = Gateway::start(data.path(), &text(""));
    let ask = |command: &str| {
        let output = gateway.ask(&[command]);
        (output.status.code(), stdout(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(ask("diff"), (Some(0), "nothing differs from what is in force\n".to_owned(), String::new()));

    write("allow = [\"10.0.0.0/8\"]\n");
    let (code, out, _) = ask("diff");
    assert_eq!(code, Some(0), "whatever differs");
    assert_eq!(out, "~ source a: allow (unset) -> [10.0.0.0/8]\n`hookward reload` makes it so\n");
    let (code, out, _) = ask("reload");
    assert_eq!((code, out.as_str()), (Some(0), "~ source a: allow (unset) -> [10.0.0.0/8]\nin force\n"));

    write("alow = 1\n");
    for command in ["diff", "reload"] {
        let (code, _, errors) = ask(command);
        assert_eq!(code, Some(78), "{command}");
        assert!(errors.contains("did you mean `allow`?") && errors.contains("hookward.toml:"), "{errors}");
    }
    let file = data.path().join("hookward.toml");
    let output = run(hookward().arg("reload").arg("-c").arg(&file));
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));

    write("");
    std::fs::write(data.path().join("secret"), "binary-canary-9876543210\n").expect("written");
    gateway.signal("HUP");
    gateway.line_with("configuration loaded anew");
    assert_eq!(ask("diff").1, "nothing differs from what is in force\n");
    let (code, log) = gateway.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("secrets[1] changed"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

#[test]
fn a_watched_configuration_is_loaded_when_a_secret_of_it_changes() {
    let data = TempDir::new().expect("a directory");
    let secret = data.path().join("secret");
    std::fs::write(&secret, "binary-canary-0123456789\n").expect("written");
    let gateway = Gateway::start(data.path(), &text("").replace("[server]\n", "[server]\nwatch = true\n"));
    gateway.line_with("watching the files of the configuration");
    std::fs::write(&secret, "binary-canary-9876543210\n").expect("written");
    let line = gateway.line_with("configuration: changed");
    assert!(line.contains("secrets[1] changed"), "{line}");
    gateway.end();
}
