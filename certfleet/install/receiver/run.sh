# ---------------------------------------------------------------------------------------------- the run

mode=${1:-}
[ $# = 0 ] || shift
if [ "$mode" = serve ]; then
	[ $# -le 1 ] || die "usage: receiver.sh serve [CONFIGURATION]"
	configure "${1:-/etc/certfleet/receiver.conf}"
	decent "${SSH_ORIGINAL_COMMAND-}"
	# shellcheck disable=SC2086 # several words; they hold no wildcard
	set -- $SSH_ORIGINAL_COMMAND
	unset SSH_ORIGINAL_COMMAND
	mode=$1
	shift
fi
case $mode in
install | rollback | status | check | remove | cleanup | challenge | withdraw | snippet | request | version) ;;
*) die "usage: receiver.sh install|rollback|status|check|remove|cleanup|challenge|withdraw|snippet|request|version|serve ..." ;;
esac
while [ $# -gt 0 ]; do
	case $1 in
	--*)
		[ $# -ge 2 ] || die "unknown option, or one that needs a value: $1"
		case $1 in
		--adopt) app_name "$2" && adopt="$adopt$2 " || die "not the name of an app: $2" ;;
		--made-here) app_name "$2" && made="$made$2 " || die "not the name of an app: $2" ;;
		--again) app_name "$2" && again="$again$2 " || die "not the name of an app: $2" ;;
		--keep)
			case $2 in *:*) app_name "${2%%:*}" ;; esac && number "${2#*:}" || die "not N or APP:N: $2"
			case $2 in *:*) keep="$keep$2 " ;; *) kept=$2 ;; esac
			;;
		*)
			[ -z "$configuration" ] || die "unknown option: $1"
			setting "${1#--}" "$2" || die "unknown option: $1"
			;;
		esac
		shift 2
		;;
	-*) die "unknown option: $1" ;;
	*) break ;;
	esac
done
case $mode in
rollback | remove) ;;
check) [ $# = 0 ] || { [ $# = 1 ] && [ "$1" = reload ]; } || die "not known to check: $1" ;;
*) [ $# = 0 ] || die "$mode is told too much: $1" ;;
esac
[ "$mode" != version ] || finish
[ -n "$root" ] || die "--root is needed: an absolute path"
if [ "$mode" = status ]; then
	status
	finish
fi
[ -n "$test" ] && [ -n "$reload" ] || die "--test and --reload are needed"
[ "$mode" != check ] || check "$@"
[ -d "$root" ] || mkdir -p "$root" 2>/dev/null || [ -d "$root" ] || die "$root cannot be made; look at its permissions"
[ -w "$root" ] || die "$root cannot be written to; look at its permissions"
work=$root/.incoming.$$
lock
recover
case $mode in
install) install ;;
rollback) rollback "$@" ;;
remove) remove "$@" ;;
*) "$mode" ;;
esac
finish
