# ---------------------------------------------------------------------------------------------- over SSH

# The key that certfleet logs in with runs `receiver.sh serve` and nothing else: authorized_keys says so, with
# command="…",restrict. What was asked for is in SSH_ORIGINAL_COMMAND. It chooses a verb, apps and numbers;
# directories and commands are this host's own, lines NAME=VALUE in its configuration.

configuration=''

configure() {
	configuration=$1
	[ -f "$1" ] && [ -r "$1" ] || die "$1 is not there or cannot be read; \`certfleet host setup\` writes it"
	while IFS= read -r line || [ -n "$line" ]; do
		case $line in
		'' | '#'*) ;;
		*=*) setting "${line%%=*}" "${line#*=}" || die "$1 has a line that means nothing: $line" ;;
		*) die "$1 has a line that is not NAME=VALUE: $line" ;;
		esac
	done <"$1"
}

# Nothing that could be read as more than words. $1: what was asked for.
decent() {
	[ ${#1} -le "$asked_limit" ] || die "more than $asked_limit characters were asked for"
	case $1 in
	*[!a-z0-9:\ -]*) die "this key installs certificates, and nothing else; what was asked for is not among its words" ;;
	*[!\ ]*) ;;
	*) die "this key installs certificates, it opens no shell" ;;
	esac
}
