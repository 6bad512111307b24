hookward check -c config.example.toml
hookward check -c tests/config/invalid/unknown-provider.toml
hookward check -c tests/config/invalid/signed-without-secret.toml --json
hookward check -c tests/config/valid/rotation-and-modes.toml --no-secrets
hookward check -c missing.toml
hookward serve -c tests/config/invalid/unknown-provider.toml
