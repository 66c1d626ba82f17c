# ---------------------------------------------------------------------------------------------- the verbs

install() {
	unpack
	time=$(date -u +%Y%m%dT%H%M%SZ)
	for directory in "$work"/new/*; do
		[ -d "$directory" ] || die "the archive is empty"
		decide "${directory##*/}"
	done
	[ -n "$plan" ] || return 0
	if ! run "$test"; then
		keep_output
		blame_altered || {
			each broken "$plan"
			return
		}
	fi
	# Onto the disk before anything points to it: a power cut must not leave empty files in use.
	find "$work/new" -type f -exec sync {} + 2>/dev/null
	each move_in "$plan" || die "the files cannot be moved into place in $root; is the disk full?"
	carry_out
}

rollback() {
	for wanted; do
		app=${wanted%%:*} target=${wanted#*:}
		app_name "$app" && { [ "$target" = 0 ] || number "$target"; } || die "not APP:GENERATION: $wanted"
		look "$app"
		if [ "$state" = foreign ]; then
			result "$app" foreign 0 0 "$root/$app was not put there by certfleet"
		elif [ "$now" = "$target" ]; then
			result "$app" unchanged "$now" "$now"
		elif [ "$target" != 0 ] && ! whole "$root/$app/$target"; then
			result "$app" failed "$now" "$now" "generation $target is not here any more"
		else
			plan="$plan${plan:+,}$app:$target:$now:"
		fi
	done
	carry_out
}

status() {
	for directory in "$root"/*; do
		app=${directory##*/}
		app_name "$app" || continue
		look "$app"
		[ "$state" != new ] || continue
		if [ "$state" = ours ]; then
			state=empty
			[ "$now" = 0 ] || state=current
		fi
		result "$app" "$state" "$now" 0
	done
}
