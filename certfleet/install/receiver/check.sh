# ---------------------------------------------------------------------------------------------- what works here

points='' # as JSON

# name true|false message
point_out() {
	points="$points${points:+,}{\"name\":\"$1\",\"ok\":$2,\"message\":\"$(printf '%s' "$3" | quote)\"}"
}

# The program that a command begins with, if it is there.
found() {
	set -- "${1%% *}"
	command -v "$1"
}

# Whether a process of one of these names runs.
running() {
	for name; do
		! grep -qsx "$name" /proc/[0-9]*/comm || return 0
	done
	return 1
}

check_server() {
	if ! at=$(found "$test"); then
		point_out "web server" false "there is no ${test%% *} here; install it, or say how the server is tested"
		return
	fi
	case $server in
	apache) set -- apache2 httpd ;;
	files) set -- ;;
	*) set -- "$server" ;;
	esac
	if [ $# = 0 ] || [ ! -r /proc/self/comm ] || running "$@"; then
		point_out "web server" true "$at"
	else
		point_out "web server" false "$1 does not run; start it"
	fi
}

check_test() {
	if output=$(sh -c "$test" 2>&1 </dev/null 9>&-); then
		point_out "configuration test" true "$test"
	else
		point_out "configuration test" false "$test: $output"
	fi
}

# Whether it may reload shows when it does: a graceful reload of a configuration that passed its test.
check_reload() {
	if [ "${1:-}" != reload ]; then
		if ! found "$reload" >/dev/null; then
			point_out reload false "there is no ${reload%% *} here; say how the server is reloaded"
		elif [ "$(id -u)" != 0 ]; then
			point_out reload true "not tried, and we are not root: ${reload}"
		else
			point_out reload true "not tried, we are root: ${reload}"
		fi
	elif ! sh -c "$test" >/dev/null 2>&1 </dev/null; then
		point_out reload false "not tried: the configuration test fails"
	elif output=$(sh -c "$reload" 2>&1 </dev/null 9>&-); then
		point_out reload true "$reload"
	else
		point_out reload false "$reload: $output"
	fi
}

check_root() {
	spot=$root
	while [ ! -e "$spot" ] && [ -n "$spot" ]; do spot=${spot%/*}; done
	if [ ! -d "${spot:-/}" ]; then
		point_out root false "$spot is not a directory"
	elif [ ! -w "${spot:-/}" ]; then
		point_out root false "${spot:-/} cannot be written to; look at its permissions, and whether its file system is read-only"
	elif [ "$spot" != "$root" ]; then
		point_out root true "$root is made by the first install"
	elif [ -n "$(find "$root" -prune \( -perm -040 -o -perm -020 -o -perm -004 -o -perm -002 \))" ]; then
		point_out root false "$root can be read or written by others: chmod 700 $root"
	elif [ -n "$(find "$root" -name privkey.pem \( -perm -004 -o -perm -002 \) 2>/dev/null | head -n 1)" ]; then
		point_out root false "a private key below $root can be read by everybody: find $root -name privkey.pem -perm -004"
	elif ! { head -c 65536 /dev/zero >"$root/.probe.$$"; } 2>/dev/null; then
		rm -f "$root/.probe.$$"
		point_out root false "$root has no room; is the disk full?"
	else
		rm -f "$root/.probe.$$"
		point_out root true "$root"
	fi
}

# Who can write the configuration can have any command run by us.
check_configuration() {
	[ -n "$configuration" ] || return 0
	if [ -n "$(find "$configuration" "${configuration%/*}" -prune \( -perm -020 -o -perm -002 \) ! -type l)" ]; then
		point_out configuration false "$configuration or its directory can be written by others than its owner"
	else
		point_out configuration true "$configuration"
	fi
}

# What compares keys and certificates where the server's own test does not.
check_openssl() {
	case $server in apache | files) ;; *) return 0 ;; esac
	if at=$(command -v openssl); then
		point_out openssl true "$at"
	else
		point_out openssl false "openssl is not installed here; the test of $server does not compare keys and certificates"
	fi
}

# What makes the keys of apps with key-on-host; who asks knows whether there is any.
check_keys() {
	if at=$(command -v openssl); then
		point_out "key on host" true "$at"
	else
		point_out "key on host" false "openssl is not installed here; it makes the keys of apps with key-on-host"
	fi
}

check() {
	check_configuration
	check_server
	check_openssl
	check_test
	check_reload "${1:-}"
	check_root
	check_keys
	printf '{"version":1,"release":"%s","time":%d,"root":"%s","points":[%s],"error":null}\n' "$release" "$(date +%s)" "$root" "$points"
	exit 0
}
