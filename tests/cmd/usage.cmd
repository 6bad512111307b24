# How a mistyped command is answered: exit code 2, and what to write.
hookward
hookward serv
hookward serve
hookward check --configuration hookward.toml
hookward echo --status 99
hookward echo --delay 5
hookward sign -p partssource
hookward sign -p partsource --secret canary
hookward sign -p partssource --secret-file missing
hookward sign -p partssource --secret canary --secret canary
hookward sign -p standard-webhooks --secret 'canary canary'
hookward sign -p github --secret canary --param a=b
hookward sign -p github --secret canary --param a
hookward sign -p github --private-key missing
hookward sign -p discord --secret canary
hookward sign -p discord --private-key missing
hookward sign -p paypal --private-key missing
hookward sign -p paypal --private-key missing --param webhook=1
hookward sign -p github -c config.example.toml --source gains
hookward sign -c config.example.toml
hookward verify -p twilio --secret canary --headers tests/cmd/verify/gains.headers -b tests/cmd/verify/body.json
hookward providers --evidence rumour
hookward send -p stripe --secret canary -b missing -u http://127.0.0.1:1/
hookward send -p stripe --secret canary -b tests/cmd/verify/body.json -u 127.0.0.1
hookward send -p stripe --secret canary -b tests/cmd/verify/body.json -u http://127.0.0.1:1/ --rate 0
hookward events redeliver
hookward events redeliver 019604a1 --state dead
hookward events purge
hookward events list --json-pointer /a
hookward events list --limit 501
hookward events list --admin-url 127.0.0.1:9900
hookward events list -c missing.toml
hookward status --admin-url http://127.0.0.1:1
hookward store verify
hookward store verify --path missing
hookward store verify --path Cargo.toml
hookward store backup --path missing --to x --config y
hookward store backup --path missing
hookward store restore missing.db --path missing
