# ---------------------------------------------------------------------------------------------- switching

refuse() {
	take_apart "$1"
	result "$app" failed "$previous" "$previous" "$message_quoted"
	[ "$mode" != install ] || [ -n "$aside" ] || [ "$target" = "$previous" ] || discard "$root/$app/$target"
}

broken() {
	take_apart "$1"
	result "$app" broken-before "$previous" "$previous" "$message_quoted"
}

# Removes what is older than the newest few, but never the current and the previous generation.
prune() {
	stay=$kept
	case $keep in *" $1:"*) stay=${keep##*" $1:"} stay=${stay%% *} ;; esac
	set -- "$root/$1"/[1-9]*
	[ $# -gt "$stay" ] || return 0
	for directory; do printf '%s\n' "${directory##*/}"; done | sort -rn >"$work/generations"
	position=0
	while read -r generation; do
		position=$((position + 1))
		[ "$position" -gt "$stay" ] || continue
		[ "$generation" != "$target" ] && [ "$generation" != "$previous" ] && number "$generation" || continue
		discard "$root/$app/$generation"
	done <"$work/generations"
}

succeed() {
	take_apart "$1"
	case $mode in
	install)
		drop_keys "$app" "$target"
		result "$app" installed "$target" "$previous"
		prune "$app"
		;;
	remove)
		forget "$app"
		result "$app" removed 0 0
		;;
	*) result "$app" rolled-back "$target" "$previous" ;;
	esac
}

# Splits a list in two: half, other.
halve() {
	IFS=,
	# shellcheck disable=SC2086 # split at the commas; the names hold no wildcard
	set -- $1
	unset IFS
	middle=$(($# / 2)) half='' other=''
	for entry; do
		if [ "$middle" -gt 0 ]; then half="$half${half:+,}$entry"; else other="$other${other:+,}$entry"; fi
		middle=$((middle - 1))
	done
}

keep_output() {
	# haproxy says much before it comes to the reason.
	message_quoted=$(sed -e '/^\[NOTICE]/d' -e '/^\[WARNING]/d' "$work/output" | quote)
	[ -n "$message_quoted" ] || message_quoted='it failed without a word'
}

# Switches what the plan names. A group that the test refuses is put back and tried again by halves, until the
# ones that are to blame stand alone.
switch() {
	groups=$plan
	[ -z "$altered" ] || groups="$altered $others"
	while [ -n "$groups" ]; do
		group=${groups%% *}
		groups=${groups#"$group"} groups=${groups# }
		: >"$work/output"
		if each forward "$group" && run "$test"; then
			live="$live,$group"
			continue
		fi
		keep_output
		each back "$group" || die "$root cannot be written to; what is half done there is put right by the next run"
		case $group in
		*,*)
			halve "$group"
			groups="$half $other${groups:+ }$groups"
			;;
		*) refuse "$group" ;;
		esac
	done
	live=${live#,}
}

note_down() {
	printf '%s\n' "$1" >"$work/pending" && mv -f -T "$work/pending" "$root/.pending" ||
		die "$root cannot be written to; is the disk full?"
}

# This run owes no reload. What an earlier one owes is owed on.
owe_nothing_more() {
	if [ -n "$left" ]; then note_down "$left"; else rm -f "$root/.pending"; fi
}

# Tells what is to be put right from the rest of the plan: what was changed, and what is in use without all its files.
sort_out() {
	take_apart "$1"
	if [ "$target" = "$previous" ] || { [ "$previous" = 0 ] && [ -z "$aside" ] && [ -L "$root/$app/current" ]; }; then
		altered="$altered${altered:+,}$1"
	else
		others="$others${others:+,}$1"
	fi
}

# The test fails as it is. Files of ours that were changed may be why: whether it passes with what they should be.
blame_altered() {
	each sort_out "$plan"
	[ -n "$altered" ] || return 1
	note_down "$altered"
	each move_in "$altered" || die "the files cannot be moved into place in $root; is the disk full?"
	if each forward "$altered" && run "$test"; then mended=yes; else mended=''; fi
	each back "$altered" || die "$root cannot be written to; what is half done there is put right by the next run"
	[ -z "$mended" ] || return 0
	owe_nothing_more
	return 1
}

# The journal first, then the switch, the reload, and only then the journal's end.
carry_out() {
	[ -n "$plan" ] || return 0
	note_down "$plan"
	switch
	if [ -z "$live" ]; then
		owe_nothing_more
	elif reload_server; then
		each settle "$live"
		rm -f "$root/.pending"
		each succeed "$live"
	else
		keep_output
		each back "$live" || die "$root cannot be written to; what is half done there is put right by the next run"
		! reload_server || rm -f "$root/.pending"
		each refuse "$live"
	fi
}
