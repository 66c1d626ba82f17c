# Sets a host up for certfleet: the receiver, its configuration, and the key that may run it and nothing else.
# Run as root by certfleet/install/setup.py, which puts lines before this one that say what is to be there:
# receiver, configuration (contents of files), key (type and base64), comment, user.
# Every file has its name only when it is complete, and running it again changes nothing.

# shellcheck shell=sh

set -eu
umask 022
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
library=/usr/local/lib/certfleet settings=/etc/certfleet
program=$library/receiver.sh

fail() {
	printf '%s\n' "$*" >&2
	exit 1
}

# content file mode
put() {
	printf '%s' "$1" >"$2.new.$$" && chmod "$3" "$2.new.$$" && mv -f "$2.new.$$" "$2"
}

[ "$(id -u)" = 0 ] || fail "this has to be done as root; log in as root, or as somebody who may use sudo without a password"
for needed in tar sed find sort readlink cmp; do
	command -v "$needed" >/dev/null || fail "there is no $needed on this host; install it"
done

mkdir -p "$library" "$settings"
chmod 755 "$library" "$settings"
put "${receiver:?}" "$program" 755
put "${configuration:?}" "$settings/receiver.conf" 644

command=$program
owner=${user:?}
home=$({ getent passwd "$user" || grep "^$user:" /etc/passwd || :; } 2>/dev/null | head -n 1 | cut -d: -f6)
if [ "$user" != root ]; then
	command="sudo -n $program"
	command -v sudo >/dev/null || fail "there is no sudo on this host; install it, or let certfleet log in as root"
	if [ -z "$home" ]; then
		# /bin/sh reads no start-up files; what is root's in its home it cannot change; * is no password, and not locked.
		home=$settings/home owner=root
		useradd --system --no-create-home --home-dir "$home" --shell /bin/sh --password '*' "$user"
	elif [ "$home" = "$settings/home" ]; then
		owner=root
	fi
	# One command with one word, and the variable that sshd puts the request into.
	rule="Defaults!$program env_keep += \"SSH_ORIGINAL_COMMAND\", !requiretty, !use_pty
$user ALL=(root) NOPASSWD: $program serve
"
	# sudo passes over names with a dot in them until the file is complete.
	put "$rule" /etc/sudoers.d/certfleet 440
	! command -v visudo >/dev/null || visudo -cq -f /etc/sudoers.d/certfleet ||
		{ rm -f /etc/sudoers.d/certfleet && fail "sudo does not take the rule for $user; look at visudo -c"; }
fi
[ -n "$home" ] || fail "/etc/passwd says nothing about the home of $user; let certfleet log in as another user"

mkdir -p "$home/.ssh"
keys=$home/.ssh/authorized_keys
[ ! -L "$keys" ] || keys=$(readlink -f "$keys")
line="command=\"$command serve\",restrict ${key:?} ${comment:?}"
old=''
[ ! -f "$keys" ] || old=$(grep -vF "${key#* }" "$keys") || :
put "$old${old:+
}$line
" "$keys" 600
if [ "$owner" = root ] && [ "$user" != root ]; then
	chmod 755 "$home" "$home/.ssh" && chmod 644 "$keys"
else
	chmod 700 "$home/.ssh" && chown "$owner" "$home/.ssh" "$keys"
fi
! command -v restorecon >/dev/null || restorecon -R "$home/.ssh" || :
