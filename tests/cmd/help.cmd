hookward --help
hookward -h
hookward serve --help
hookward check --help
hookward demo --help
hookward echo --help
hookward sign --help
hookward send --help
hookward verify --help
hookward providers --help
hookward events --help
hookward events list --help
hookward events show --help
hookward events redeliver --help
hookward events release --help
hookward events forget --help
hookward events purge --help
hookward operations --help
hookward operations list --help
hookward operations show --help
hookward operations stop --help
hookward operations resume --help
hookward upstreams --help
hookward upstreams pause --help
hookward upstreams resume --help
hookward status --help
hookward reload --help
hookward diff --help
hookward store --help
hookward store verify --help
hookward store backup --help
hookward store restore --help
