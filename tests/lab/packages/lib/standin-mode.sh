# What a test wants from this maintainer script on this one host. The genuine scripts have nothing like it.
# /etc/standin/postinst-mode: `fail` ends the script with 1; `hold` waits while /run/standin-hold exists, at most 120 s.
standin_mode=$(cat /etc/standin/postinst-mode 2>/dev/null || :)
case "$standin_mode" in
    fail)
        echo "pmm-client: post-installation failed: cannot set up the client" >&2
        exit 1
        ;;
    hold)
        waited=0
        while [ -e /run/standin-hold ] && [ "$waited" -lt 120 ]; do
            sleep 1
            waited=$((waited + 1))
        done
        ;;
esac
