// Sets the theme that was chosen before anything is painted, so that no page flashes in the other one; that is why it
// is no module. It changes nothing else, and without a choice the system's own scheme holds.
'use strict';

try {
    const theme = localStorage.getItem('henge.theme');
    if (theme === 'light' || theme === 'dark') {
        document.documentElement.dataset.theme = theme;
    }
} catch {
    // A browser that keeps nothing for this page has the system's scheme.
}
