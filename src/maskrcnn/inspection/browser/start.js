'use strict';
// Show what needs this script, and follow the best detection.

for (const part of document.querySelectorAll('.live')) part.hidden = false;
choose();
followed = selection.found.length ? selection.found[0].row : NOBODY;
document.dispatchEvent(new CustomEvent('followed'));
if (image.complete) draw();
else image.addEventListener('load', draw);
