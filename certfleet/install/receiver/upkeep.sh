# ---------------------------------------------------------------------------------------------- taking away

# Everything of an app, and the keys that wait for a certificate of it.
forget() {
	discard "$root/$1" && discard "$root/.keys/$1"
}

# Out of use first, as a rollback to nothing does it; what the web server cannot do without stays.
remove() {
	for app; do
		app_name "$app" || die "not the name of an app: $app"
		look "$app"
		if [ "$state" = foreign ]; then
			result "$app" foreign 0 0 "$root/$app was not put there by certfleet"
		elif [ "$now" != 0 ]; then
			plan="$plan${plan:+,}$app:0:$now:"
		else
			{ [ "$state" = new ] || places hide "$app"; } && forget "$app" || die "$root cannot be written to; look at its permissions"
			result "$app" removed 0 0
		fi
	done
	[ -n "$plan" ] || return 0
	if ! run "$test"; then
		keep_output
		each broken "$plan"
		return
	fi
	carry_out
}

generations() {
	set -- "$root/$1"/[1-9]*
	[ -e "$1" ] || set --
	printf '%d' $#
}

cleanup() {
	for directory in "$root"/*; do
		app=${directory##*/}
		app_name "$app" || continue
		look "$app"
		[ "$state" = ours ] || continue
		target=$now previous=$now there=$(generations "$app")
		prune "$app"
		result "$app" cleaned "$now" 0 "$((there - $(generations "$app"))) generations deleted"
	done
}
