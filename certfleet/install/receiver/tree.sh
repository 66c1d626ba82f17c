# ---------------------------------------------------------------------------------------------- the tree

# What stands in an app's place: state (new, ours, foreign), and now, the generation in use (0: none).
look() {
	spot=$root/$1 state=ours now=0
	if [ ! -e "$spot" ] && [ ! -L "$spot" ]; then
		state=new
	elif [ -L "$spot" ] || [ ! -f "$spot/.certfleet" ]; then
		state=foreign
	elif [ -L "$spot/current" ]; then
		now=$(readlink "$spot/current")
		if ! number "$now"; then
			state=foreign now=0
		elif ! whole "$spot/$now"; then
			now=0
		fi
	elif [ -e "$spot/current" ]; then
		state=foreign
	fi
}

whole() {
	[ -s "$1/fullchain.pem" ] && [ -s "$1/privkey.pem" ]
}

# Makes a generation current; 0: none.
point() {
	if [ "$2" = 0 ]; then
		places hide "$1" && rm -f "$root/$1/current"
	else
		ln -sn "$2" "$work/link" && mv -f -T "$work/link" "$root/$1/current" && places show "$1"
	fi
}

# Out of sight by one rename, so that no half-deleted directory ever has a generation's name.
discard() {
	[ -e "$1" ] || return 0
	trashed=$((${trashed:-0} + 1))
	mv -f -T "$1" "$work/trash.$trashed" && rm -rf "$work/trash.$trashed"
}

# What the web server finds at the generation in use becomes what came in; the other waits until it has proven itself.
forward() {
	take_apart "$1"
	if [ "$target" = "$previous" ]; then
		mv -f -T "$root/$app/$target" "$root/$app/.$target" && mv -f -T "$work/new/$app/$target" "$root/$app/$target" &&
			places show "$app"
		return
	fi
	if [ -n "$aside" ]; then
		mv -f -T "$root/$app" "$root/$aside" && mv -f -T "$work/new/$app" "$root/$app" || return 1
	fi
	point "$app" "$target"
}

back() {
	take_apart "$1"
	if [ "$target" = "$previous" ]; then
		[ -e "$root/$app/.$target" ] || return 0
		if [ -e "$root/$app/$target" ]; then
			mkdir -p "$work/new/$app" && mv -f -T "$root/$app/$target" "$work/new/$app/$target" || return 1
		fi
		mv -f -T "$root/$app/.$target" "$root/$app/$target"
		return
	fi
	if [ -z "$aside" ]; then
		[ ! -e "$root/$app/.certfleet" ] || point "$app" "$previous"
	elif [ -e "$root/$aside" ] || [ -L "$root/$aside" ]; then
		if [ -e "$root/$app" ]; then
			places hide "$app" && mkdir -p "$work/new" && mv -f -T "$root/$app" "$work/new/$app" || return 1
		fi
		mv -f -T "$root/$aside" "$root/$app"
	fi
}

# Switched only half: what was there is aside, and nothing stands in its place yet.
mend() {
	take_apart "$1"
	if [ "$target" = "$previous" ]; then
		[ -e "$root/$app/$target" ] || back "$1"
	elif [ -n "$aside" ] && [ ! -L "$root/$app/current" ]; then
		back "$1"
	elif [ -L "$root/$app/current" ]; then
		places show "$app" || back "$1"
	fi
}

# What a killed run left: complete it when the web server takes it, else put it back; in any case, reload.
recover() {
	rm -rf "$root"/.incoming.* "$root"/.lock.dead.*
	mkdir "$work" || die "$work cannot be made; look at the permissions of $root and at its free space"
	prepare
	take_away_old
	drop_old_keys
	complete_snippets
	[ -e "$root/.pending" ] || return 0
	read -r left <"$root/.pending" || left=''
	each mend "$left"
	if ! { run "$test" && reload_server; }; then
		each back "$left"
		run "$test" && reload_server || return 0
	fi
	each settle "$left"
	rm -f "$root/.pending"
	left=''
}

# What was found changed is of no more use.
settle() {
	take_apart "$1"
	[ "$target" != "$previous" ] || discard "$root/$app/.$target"
}
