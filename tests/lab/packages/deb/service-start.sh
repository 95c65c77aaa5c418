case "$1" in
    configure|abort-upgrade|abort-deconfigure|abort-remove)
        deb-systemd-helper unmask pmm-agent.service >/dev/null || :
        if deb-systemd-helper --quiet was-enabled pmm-agent.service; then
            deb-systemd-helper enable pmm-agent.service >/dev/null || :
        else
            deb-systemd-helper update-state pmm-agent.service >/dev/null || :
        fi
        if [ -d /run/systemd/system ]; then
            systemctl --system daemon-reload >/dev/null || :
            if [ -n "$2" ]; then action=restart; else action=start; fi
            deb-systemd-invoke "$action" pmm-agent.service >/dev/null || :
        fi
        ;;
esac
